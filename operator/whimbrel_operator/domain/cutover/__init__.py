"""Between a Migration that follows and one whose traffic has moved: gates, steps, hooks, and the way back."""
