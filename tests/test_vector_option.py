"""The option --vectors: which files a test of the reference's tensors runs on."""

from support.vectors import DEFAULT_FOLDER, vector_paths


def test_files_are_chosen_by_their_first_word(tmp_path):
    for name in ("net_a.safetensors", "net.safetensors", "network_b.safetensors", "net_c.txt"):
        (tmp_path / name).touch()

    assert [path.name for path in vector_paths("net", tmp_path)] == [
        "net.safetensors",
        "net_a.safetensors",
    ]


def test_another_folder_may_lack_a_word_but_the_committed_one_must_not(tmp_path):
    assert vector_paths("absent", tmp_path) == []
    assert [path.exists() for path in vector_paths("absent", DEFAULT_FOLDER)] == [False]
