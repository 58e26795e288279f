from ._table import DETable as DETable
