"""People: their accounts, what they prefer, their keys, and taking it all along or away."""
