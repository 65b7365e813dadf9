"""A made-up market that looks like the real one: paths of prices and volatility, listings, a surface, quotes."""
