"""What `skerry deploy` tells while the server works on indexes."""

from skerry.cli.deploy import progress_line


def test_a_push_is_told_of_by_what_it_does() -> None:
    built = {"table": "t", "index": "by_n", "state": "ready"}
    assert progress_line({"push": None, "indexes": [built]}) == ""
    assert progress_line({}) == ""
    judging = {"phase": "judging", "documentsJudged": 12_345}
    assert progress_line({"push": judging, "indexes": [built]}) == "checking documents: 12,345"
    building = {"table": "t", "index": "by_x", "state": "building", "documents": 1_600}
    assert progress_line({"push": judging, "indexes": [built, building]}) == "building t.by_x 1,600 documents"
