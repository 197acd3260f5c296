"""What tests of a system built on Relive need: a pytest plugin and a real Kafka broker.

Nothing is imported here, since pytest loads the plugin in every run of whoever installed Relive.
"""
