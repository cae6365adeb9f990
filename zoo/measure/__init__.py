"""How anything is timed: visits in turn, every sample kept, and what the machine did meanwhile."""
