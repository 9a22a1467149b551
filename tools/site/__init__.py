"""What the documentation is made of beside docs/: pages and tables that are read off the code when it is built."""
