"""What runs in the processes of a sandbox's worker and beat."""
