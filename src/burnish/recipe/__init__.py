"""The recipe: what a run is told, checked before anything heavy is imported."""
