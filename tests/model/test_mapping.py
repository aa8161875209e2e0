from pathlib import Path

from twinfer.model.mapping import drop_cached, map_file


def test_what_is_dropped_from_the_page_cache_is_read_again(tmp_path: Path) -> None:
    """Also while it is mapped, and when it was just written."""
    path = tmp_path / "weights"
    data = bytes(range(256)) * 4096 * 3
    path.write_bytes(data)
    drop_cached(path)
    first = map_file(path)
    assert data == first[:]
    drop_cached(path)
    with map_file(path) as second:
        assert data == second[:]
    assert data == first[:]
    first.close()
