"""`vcjax score`: aggregates of a prediction against those of a baseline."""

import argparse
import json


def score_command(args: argparse.Namespace) -> int:
    """Scores, writes and prints."""
    from ..evaluation import number, score

    found = score(
        *(args.user_input, args.base_input),
        preset=args.preset,
        replicate=args.replicate,
        clipped=not args.unclipped,
    )
    found.write(args.output)
    if args.json:
        print(json.dumps({"scores": dict(found.values), "avg_score": found.average, "dropped": list(found.dropped)}))
    elif not args.quiet:
        width = max(len(name) for name in (*found.values, "avg_score"))
        for name, value in (*found.values.items(), ("avg_score", found.average)):
            print(f"{name:<{width}} {number(value):>9}")
        for name in found.dropped:
            print(f"note: {name} is not scored: the baseline leaves no room")
        print(f"Wrote {args.output}")
    return 0
