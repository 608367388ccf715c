// Search runs in a worker, and browsers start none from files: there a frame runs its script.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.ready = new Promise(done => this.frame.addEventListener("load", done))
      // What the script posts arrives here as a worker's message would.
      this.frame.answer = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.frame.srcdoc = "<script>window.postMessage = data => frameElement.answer(data)<\/script>"
        + `<script src="${url}"><\/script>`
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.ready.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
