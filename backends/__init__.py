"""What needs a GPU or a server: meters, engines, live replay."""
