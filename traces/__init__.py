"""What goes in and what comes out: requests, trace formats, run records."""
