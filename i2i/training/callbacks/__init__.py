"""What watches a run while it trains: evaluation, the collapse detector, sample grids and the final
verdict."""
