from tools.mutants import read_mutants


def test_every_mutant_changes_one_place_of_a_file_that_is_there():
    mutants = list(read_mutants())
    assert len(mutants) >= 60
    assert len({(m.file, m.old, m.new) for m in mutants}) == len(mutants)
    assert all(mutant.old != mutant.new for mutant in mutants)
