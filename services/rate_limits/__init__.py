"""How often somebody may ask for something: rules, subjects, counting by the library `limits`."""
