"""Where Drover differs from CPython, test by test, and why. A test that is listed here and passes fails the run, and so does one that
fails and is not listed. For Python 3.11, and for 3.13 where it says more."""

PRIVATE = "a private method of CPython, for its own Condition and for os.register_at_fork"
OWNED = "a mutex belongs to the thread that locked it: others get EPERM; hand-offs use a semaphore or a permit"
FEEDER = "there is no feeder thread: an item that cannot be pickled fails in put, of whoever puts it"
DONE = "items of this queue are done when they are got: task_done has nothing to do, and says so"
CLOSED = "a queue that is closed can still be asked how much is in it"
LEASED = "an item that was got takes its place until task_done, which this test never calls: after as many as fit nobody can put"

DIFFERENT = {
    "LockTests.test_at_fork_reinit": PRIVATE,
    "MutexTests.test_at_fork_reinit": PRIVATE,
    "EventTests.test_at_fork_reinit": PRIVATE,
    "RLockTests.test__is_owned": PRIVATE,
    "RLockTests.test_recursion_count": PRIVATE,
    "RLockTests.test_release_save_unacquired": PRIVATE,
    "MutexTests.test_different_thread": OWNED,
    "MutexTests.test_reacquire": OWNED,
    "MutexTests.test_state_after_timeout": "who waits for a mutex that it holds is told at once (EDEADLK) and not when the time is over",
    "QueueTests.test_queue_join": DONE,
    "LifoQueueTests.test_queue_join": DONE,
    "PriorityQueueTests.test_queue_join": DONE,
    "LeasedQueueTests.test_basic": LEASED,
    "LeasedLifoQueueTests.test_basic": LEASED,
    "LeasedPriorityQueueTests.test_basic": LEASED,
    "FailingQueueTests.test_failing_queue": "private methods of CPython's Queue, which this test makes fail",
    "SimpleQueueTests.test_references": "items are bytes: an object that cannot be pickled cannot be put",
    "DummyQueueTests.test_closed_queue_empty_exceptions": CLOSED,
    "ProcessQueueTests.test_closed_queue_empty_exceptions": CLOSED,
    "ProcessSimpleQueueTests.test_empty_exceptions": CLOSED,
    "ProcessQueueTests.test_queue_feeder_donot_stop_onexc": FEEDER,
    "ProcessQueueTests.test_queue_feeder_on_queue_feeder_error": FEEDER,
    "ProcessSimpleQueueTests.test_closed": "private attributes of CPython's SimpleQueue",
}

# Patterns of names that are not run.
NOT_OURS = {
    "ProcessSharedCTypesTests.test_copy": "copies an object that is not shared",
    "*QueueTests.test_*shutdown*": "Queue.shutdown, which came with Python 3.13; our close ends puts and leaves what is queued, for good",
}
