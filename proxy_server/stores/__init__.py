"""Where the data of bindings is kept: one file for each kind of store. What a binding makes of it is in bindings/."""
