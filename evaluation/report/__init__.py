"""A collected benchmark as a page to read, and the pictures that it is made of."""
