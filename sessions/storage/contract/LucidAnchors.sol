// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Remembers when a Merkle root was first published, and checks inclusion proofs against it.
/// @notice Nobody owns it, nobody can change it, and it asks for no fee. A root counts for its publisher only, so
/// nobody can anchor in another's name, and nobody can take a root away by being first.
contract LucidAnchors {
    /// @notice Block time, in seconds since 1970, of the first `anchor` of a root by a publisher; 0 if there is none.
    mapping(address publisher => mapping(bytes32 root => uint64 timestamp)) public anchoredAt;

    /// @notice A publisher anchored a root for the first time.
    event Anchored(address indexed publisher, bytes32 indexed root, uint64 timestamp);

    /// @notice Publishes a root in the name of the sender. A repeated call changes nothing and emits nothing, so a
    /// transaction that is sent twice does no harm.
    function anchor(bytes32 root) external {
        if (anchoredAt[msg.sender][root] != 0) return;
        uint64 timestamp = uint64(block.timestamp);
        anchoredAt[msg.sender][root] = timestamp;
        emit Anchored(msg.sender, root, timestamp);
    }

    /// @notice Whether `leafHash` is leaf number `index` of the tree of `size` leaves with that root (RFC 9162 section
    /// 2.1.3.2, SHA-256), and `publisher` has anchored the root.
    /// @param path The inclusion path, leaf to root.
    function verify(
        address publisher,
        bytes32 root,
        bytes32 leafHash,
        uint64 index,
        uint64 size,
        bytes32[] calldata path
    ) external view returns (bool) {
        if (anchoredAt[publisher][root] == 0 || index >= size) return false;
        uint64 fn = index;
        uint64 sn = size - 1;
        bytes32 node = leafHash;
        for (uint256 i = 0; i < path.length; ++i) {
            if (sn == 0) return false;
            if (fn & 1 == 1 || fn == sn) {
                node = _nodeHash(path[i], node);
                while (fn & 1 == 0 && fn != 0) {
                    fn >>= 1;
                    sn >>= 1;
                }
            } else {
                node = _nodeHash(node, path[i]);
            }
            fn >>= 1;
            sn >>= 1;
        }
        return sn == 0 && node == root;
    }

    /// @dev `sha256` is the precompile at address 2.
    function _nodeHash(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
