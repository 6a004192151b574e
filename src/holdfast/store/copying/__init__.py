"""A state from one backend to the other: from a folder into a database, and back. Whole, or not usable at all.

In comes a state in which nobody lives; out goes one that nobody may open before all of it is there, with the same name
(`store_id`), the same rows and the same bytes in each transcript. Killed at any point, the same command goes on with
what is missing. Read `carried.py` first, then `into_database.py` and `into_folder.py`.
"""
