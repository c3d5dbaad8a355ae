"""The databases that tests get copies of: migrated, seeded, and able to put themselves back."""
