"""How well cheap signals rank architectures, compared with longer training of several seeds."""
