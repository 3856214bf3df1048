// Pages that are opened from a disk may not start workers, and the search is one: this runs it in a hidden frame.
class IFrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    frame.srcdoc = `<script>
      self.postMessage = data => frameElement.dispatchEvent(new MessageEvent("answer", {data}));
      self.importScripts = (...urls) => Promise.all(urls.map(url => new Promise((done, failed) =>
        document.head.append(Object.assign(document.createElement("script"), {src: url, onload: done, onerror: failed})))));
      </script><script src="${new URL(url, location)}"></script>`.replace(/\n/g, " ");
    this.frame = frame;
    this.loaded = new Promise(done => frame.addEventListener("load", done, {once: true}));
    frame.addEventListener("answer", ({data}) => this.dispatchEvent(new MessageEvent("message", {data})));
    document.body.append(frame);
  }
  postMessage(data) {
    this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data})));
  }
  terminate() {
    this.frame.remove();
  }
}
if (location.protocol === "file:") window.Worker = window.IFrameWorker = IFrameWorker;
