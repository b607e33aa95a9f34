"use strict";
// What an element of the page holds as base64 of gzip, as bytes: names and scores of thousands of images take a tenth of the room.
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
const unpackedJson = async (id) => JSON.parse(new TextDecoder().decode(await unpacked(id)));
const percentOf = (share) => {
  if (share === null || Number.isNaN(share)) return "–";
  return share === 0 ? "0\u00a0%" : share === 1 ? "100\u00a0%" : `${(100 * share).toFixed(1)}\u00a0%`;
};
const counted = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || one + "s"}`;
