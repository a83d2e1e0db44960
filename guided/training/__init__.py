"""The parts of `guided.train`: what a run is, one step of it, its processes, its files."""
