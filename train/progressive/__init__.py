"""What progressive learning is: recipes as rows, their schedules, and what a run costs."""
