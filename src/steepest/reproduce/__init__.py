"""The experiments of the lecture and the papers, one file each: figure, numbers and sentences out."""
