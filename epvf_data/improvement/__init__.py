"""Better policies than those at hand: small pure methods that know neither data sets nor environments."""
