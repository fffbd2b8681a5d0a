"""wip"""
NODES = []
