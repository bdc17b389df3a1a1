"""Many runs from one file: what it lists, how they are scheduled, how far they are."""
