from featlab.extraction.layouts import detect_layout, read_layout


def test_the_end_of_a_name_is_the_class(put):
    root = put("sub2/Image1_N.jpg", "sub2/Image2_P.jpg", "sub1/Image10_N.jpg", "sub1/Image9_N.jpg", "sub1/Image3_P.jpg")
    items = read_layout("sfda-pft", root)
    assert [(item.subject, item.label, item.video, item.frame, item.name, item.row) for item in items] == [
        ("sub1", "neutral", "neutral", 0, "sub1/Image9_N.jpg", 0),
        ("sub1", "neutral", "neutral", 1, "sub1/Image10_N.jpg", 1),
        ("sub1", "pain", "pain", 0, "sub1/Image3_P.jpg", 2),
        ("sub2", "neutral", "neutral", 0, "sub2/Image1_N.jpg", 3),
        ("sub2", "pain", "pain", 0, "sub2/Image2_P.jpg", 4),
    ]
    assert detect_layout(root) == "sfda-pft"


def test_a_folder_a_recording_is_a_clip_and_other_letters_mean_other_classes(put):
    root = put("sub1/a/1_N.jpg", "sub1/b/1_N.jpg", "sub1/b/2_P.jpg")
    items = read_layout("sfda-pft", root, labels="N=neutral,P=stress")
    assert [(item.video, item.frame) for item in items] == [("a/neutral", 0), ("b/neutral", 0), ("b/stress", 0)]


def test_other_trees_are_refused(put, refused):
    root = put("sub1/notes.txt")
    assert "expected SUBJECT/IMAGE_N.jpg" in refused("sfda-pft", root)
    assert "found sub1/ with notes.txt" in refused("sfda-pft", root)
    put("sub1/1_N.jpg", "sub1/img_Np.jpg")
    assert "expected names that end in _N or _P, found sub1/img_Np.jpg" in refused("sfda-pft", root)
    assert detect_layout(root) is None
