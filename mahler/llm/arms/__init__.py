"""Ways of deciding on a trade, one a file: `(records, history, ask, rng) -> schema.DECISION`, a row per record.

`records` are the trades to decide on. `history` are the trades that the rules alone make, with their outcomes, of which
an arm may know only what was closed before an entry. `ask` puts trades to the model of the config; an arm that does
not call it needs no model and no key. Options are keyword-only, and their values stand in conf/arm/.
"""
