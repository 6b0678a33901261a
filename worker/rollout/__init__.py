"""A second model beside the one in force: on canary after a swap, or a candidate in the shadow. No I/O, no clock."""
