"""The services that ours is compared with, written as their documentation suggests."""
