"""The model and the analysis: policies, gateway, engine, energy, metrics."""
