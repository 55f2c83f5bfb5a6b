"""Trains, with torch and ColossalAI: what runs inside a worker process."""
