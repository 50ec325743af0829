"""What a user types: commands, options, and the line that ends a failed command."""
