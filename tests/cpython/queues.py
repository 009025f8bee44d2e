"""CPython's tests of the module queue (test.test_queue) over Drover's queues: those that lease an item until task_done, and those
for which it is done when it is got."""

import unittest
from test import test_queue

import binding
import objects

# A wait without a timeout that is known to be in vain ends after so many seconds.
IN_VAIN = 2

LEASED = objects.queues(0, IN_VAIN)
DONE_AT_GET = objects.queues(binding.DONE_AT_GET, IN_VAIN)


class QueueTests(test_queue.QueueTest, unittest.TestCase):
    queue = DONE_AT_GET


class LifoQueueTests(test_queue.LifoQueueTest, unittest.TestCase):
    queue = DONE_AT_GET


class PriorityQueueTests(test_queue.PriorityQueueTest, unittest.TestCase):
    queue = DONE_AT_GET


class LeasedQueueTests(test_queue.QueueTest, unittest.TestCase):
    queue = LEASED


class LeasedLifoQueueTests(test_queue.LifoQueueTest, unittest.TestCase):
    queue = LEASED


class LeasedPriorityQueueTests(test_queue.PriorityQueueTest, unittest.TestCase):
    queue = LEASED


class FailingQueueTests(test_queue.FailingQueueTest, unittest.TestCase):
    queue = DONE_AT_GET


class SimpleQueueTests(test_queue.CSimpleQueueTest):
    queue = DONE_AT_GET
