"""Time of operators relative to vanilla: layers, blocks and networks, timed alternately."""
