"""The broker room: consuming, producing, delivery guarantees and reading ranges. The only room that imports kafka.

base      the interfaces, with their consequences
client    KafkaConsumer, KafkaProducer and the admin client, built from plain values; every error translated
consumer  a group member                       producer  sends whose outcome is never lost
delivery  at_least_once and exactly_once       ranges    reading between bounds without a group
memory    an in-memory broker that keeps the same contract, for tests
"""
