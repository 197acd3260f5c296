"""What is not in this version yet, in one place: each is turned on when it is."""

# Whether a damaged state is rebuilt, from a snapshot or the log, without anybody asking. Until then
# opening the buffer has to fail with a StoreError that says what to remove.
STATE_IS_REBUILT = False

# Whether a process that is open takes the store over when its owner dies. Until then the next one
# that opens the buffer does.
STORE_IS_HANDED_OVER = False
