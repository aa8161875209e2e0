"""What answers may be: the tokens of a model as bytes, and which of them a grammar permits next."""
