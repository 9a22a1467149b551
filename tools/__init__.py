"""What the project is measured and its site is built with; none of it is installed."""
