"""The paper ledger: what was to be traded, what was traded, and what it came to.

    records.py    the SQLite database: tables of mahler.schema in and out, nothing else
    account.py    tickets, fills and marks -> open positions, cash, equity
    filled.py     fills and quotes -> how much of the bid-ask was travelled
    stage.py      paper, half size, full size: what each asks for, and where the account is
    occ.py        option symbols

Importers are one file each, a function `(...) -> Imported`; joining.py finds the ticket of what they bring.
"""
