use super::tests::{fault, message, whole};
use super::write::File;
use super::*;

#[test]
fn tensors_must_have_a_shape_that_exists() {
    let shape = |dims: &[u64]| fault(File::new().tensor_at(b"t", dims, 0, 0));
    assert_eq!(shape(&[]), Fault::BadRank { found: 0 });
    assert_eq!(shape(&[1; 5]), Fault::BadRank { found: 5 });
    assert_eq!(shape(&[4, 0]), Fault::EmptyDimension);
    for dims in [
        &[1 << 32, 1 << 31][..],
        &[u64::MAX],
        &[1 << 62],
        &[u64::MAX, u64::MAX, u64::MAX, u64::MAX],
        &[1 << 16; 4],
    ] {
        assert_eq!(
            shape(dims),
            Fault::SizeOverflow {
                dims: dims.to_vec()
            }
        );
    }
    for found in [4, 5, 31, 32, 33, 36, 37, 38, 43, 1 << 31, u32::MAX] {
        assert_eq!(
            fault(File::new().tensor_at(b"t", &[32], found, 0)),
            Fault::UnknownTensorType { found }
        );
    }
    assert_eq!(
        message(File::new().tensor_at(b"t", &[33, 2], 8, 0)),
        "tensor `t`: rows of 33 weights are not whole blocks of 32 (Q8_0)"
    );
    assert_eq!(
        message(File::new().tensor_at(b"\xff", &[1], 0, 0)),
        "name of tensor number 0: not UTF-8"
    );
    assert!(matches!(
        fault(File::new().tensor_at(&[b't'; 64], &[1], 0, 0)),
        Fault::TooMany { .. }
    ));
}

#[test]
fn tensors_must_lie_inside_the_file_and_apart() {
    let at = |offset| File::new().tensor_at(b"t", &[8], 0, offset).data(64);
    assert!(whole(&at(32).bytes()).is_ok());
    assert_eq!(
        fault(at(33)),
        Fault::Misaligned {
            offset: 33,
            alignment: 32
        }
    );
    let end = at(64).bytes().len() as u64 + 32;
    assert_eq!(
        fault(at(64)),
        Fault::OutsideFile {
            end: Some(end),
            length: end - 32
        }
    );
    assert!(matches!(
        fault(at(u64::MAX - 31)),
        Fault::OutsideFile { end: None, .. }
    ));
    assert!(matches!(fault(at(1 << 63)), Fault::OutsideFile { .. }));

    let two = |name: &[u8], offset| {
        File::new()
            .tensor_at(b"t", &[16], 0, 0)
            .tensor_at(name, &[8], 0, offset)
            .data(96)
    };
    assert!(whole(&two(b"u", 64).bytes()).is_ok());
    assert_eq!(
        message(two(b"u", 32)),
        "tensor `u`: shares bytes with tensor `t`"
    );
    assert!(matches!(fault(two(b"u", 0)), Fault::Overlap { .. }));
    assert_eq!(message(two(b"t", 64)), "tensor `t`: there twice");
}
