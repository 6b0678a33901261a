"""The broker room: consuming, producing, delivery guarantees and reading ranges. The only room that imports kafka.

    base      what the rooms above know: interfaces, with their consequences; another Kafka client is put behind them
    client    kafka-python's three clients from plain values; a deadline and our errors around every call of theirs
    contact   when a broker last answered; finding brokers that have moved
    consumer  a group member: where its partitions go on after a rebalance, and what it knows to be committed
    fetching  what its fetches hold, by bytes; record_batch, legacy_batch and compression make records of them
    producer  sends whose outcome is never lost
    delivery  at_least_once and exactly_once, of any consumer and producer
    ranges    reading between bounds without a group
    admin     topics and the broker's settings
    topic_names  one topic, several or a pattern, as a person names them
    topics    whether topics take what will be written: rights, cleanup, size of records
    limits    how large a record may be
    options   which of the client's options can be set, and to what
    tokens    where the tokens of OAUTHBEARER come from
    probe     why a broker can't be reached

devtools.memory_clients keeps the same contract in memory, for tests.
"""
