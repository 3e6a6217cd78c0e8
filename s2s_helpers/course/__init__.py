"""What only the lessons need: recipes, pictures, exercises' checks, widgets."""
